"""Files for other programs."""

from vitriflow.exports.micrographs import Micrographs, micrographs_star, write_star_text
from vitriflow.exports.relion import RelionProject, write_relion_project

__all__ = ["Micrographs", "RelionProject", "micrographs_star", "write_relion_project", "write_star_text"]
