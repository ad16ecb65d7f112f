"""vitriflow: from the microscope's disk to a decision, live."""

__version__ = "0.1.0"
