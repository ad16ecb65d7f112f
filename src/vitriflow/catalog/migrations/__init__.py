"""Alembic migrations of the catalog. They travel inside the package."""
