"""SerialEM: frames with an mdoc each, or the frames of tilt series with one mdoc a series."""

from pathlib import Path

from vitriflow.simulate.layouts.base import Layout
from vitriflow.simulate.plan import Exposure, FileFormat
from vitriflow.units import ANGSTROM_PER_UM

TILT_AXIS_DEG = 85.3


class SerialEmLayout(Layout):
    """``frames/NAME_00001.tif`` with ``.mdoc`` behind the whole name; tilts carry order and angle."""

    @property
    def gain_path(self) -> Path:
        """SerialEM leaves it beside the frames."""
        return self.root / "frames" / f"CountRef_{self.session.name}{self.gain_suffix}"

    def movie_path(self, exposure: Exposure) -> Path:
        """In ``frames``; single exposures are numbered, tilts named by series, order, angle and date."""
        when = exposure.acquired_at.strftime("%b%d_%H.%M.%S")
        if self.session.tilts:
            name = f"TS_{exposure.position:02d}_{exposure.order - 1:03d}_{exposure.tilt_deg:.1f}_{when}"
        else:
            name = f"{self.session.name}_{exposure.number:05d}_{when}"
        suffix = ".tif" if self.session.format is not FileFormat.MRC else ".mrc"
        suffix = ".eer" if self.session.format is FileFormat.EER else suffix
        return self.root / "frames" / (name + suffix)

    def skeleton(self) -> dict[Path, bytes]:
        """SerialEM leaves nothing before the first frames."""
        return {}

    def beside(self, exposure: Exposure, jpeg: bytes) -> dict[Path, bytes]:
        """An mdoc of one frame set; or the series' mdoc, longer by one section."""
        movie_path = self.movie_path(exposure)
        head = f"T = SerialEM: vitriflow simulator   {exposure.acquired_at:%d-%b-%y  %H:%M:%S}    "
        if not self.session.tilts:
            text = f"{head}\nVoltage = {exposure.movie.voltage_kV:g}\n\n[FrameSet = 0]\n"
            text += self._section(exposure, movie_path)
            return {movie_path.with_name(movie_path.name + ".mdoc"): text.encode()}
        path = self.root / f"TS_{exposure.position:02d}.mrc.mdoc"
        if exposure.order == 1 or not path.exists():
            height, width = exposure.movie.shape
            start = (
                f"PixelSpacing = {exposure.movie.pixel_size_A:g}\nVoltage = {exposure.movie.voltage_kV:g}\n"
                f"ImageFile = TS_{exposure.position:02d}.mrc\nImageSize = {width} {height}\nDataMode = 1\n\n"
                f"[{head}]\n\n"
                f"[T =     Tilt axis angle = {TILT_AXIS_DEG}, binning = 1  spot = 8  camera = 1]\n\n"
            )
        else:
            start = path.read_text(encoding="utf-8")
        text = f"{start}[ZValue = {exposure.order - 1}]\n{self._section(exposure, movie_path)}\n"
        return {path: text.encode()}

    def _section(self, exposure: Exposure, movie_path: Path) -> str:
        movie = exposure.movie
        x, y, z = exposure.stage_um
        defocus_um = -0.5 * (movie.defocus_u_A + movie.defocus_v_A) / ANGSTROM_PER_UM
        fields = {
            "GainReference": self.gain_path.name,
            "TiltAngle": f"{exposure.tilt_deg:.3f}",
            "StagePosition": f"{x:.3f} {y:.3f}",
            "StageZ": f"{z:.4f}",
            "Magnification": f"{round(84000 / movie.pixel_size_A / 1000) * 1000 or 1000}",
            "ExposureDose": f"{movie.total_dose_e_per_A2:.5f}",
            "PixelSpacing": f"{movie.pixel_size_A:.5g}",
            "SpotSize": "8",
            "Defocus": f"{defocus_um:.5f}",
            "ImageShift": f"{exposure.beam_shift[0]:.6f} {exposure.beam_shift[1]:.6f}",
            "RotationAngle": f"{TILT_AXIS_DEG + 90.0:g}",
            "ExposureTime": f"{0.05 * movie.n_frames:g}",
            "Binning": "1",
            "CameraIndex": "1",
            "TargetDefocus": f"{-exposure.nominal_defocus_A / ANGSTROM_PER_UM:g}",
            "PriorRecordDose": f"{exposure.dose_before_e_per_A2:.4f}",
            "SubFramePath": f"X:\\{self.session.name}\\frames\\{movie_path.name}",
            "NumSubFrames": f"{movie.n_frames}",
            "FrameDosesAndNumber": f"{movie.dose_per_frame_e_per_A2:g} {movie.n_frames}",
            "DateTime": f"{exposure.acquired_at:%d-%b-%y  %H:%M:%S}",
        }
        return "".join(f"{key} = {value}\n" for key, value in fields.items())
