"""How a database of records comes to the tables of `record_tables`, step by step (alembic)."""
