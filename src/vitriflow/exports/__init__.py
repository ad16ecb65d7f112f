"""Files for other programs."""

from vitriflow.exports.relion import RelionProject, write_relion_project

__all__ = ["RelionProject", "write_relion_project"]
