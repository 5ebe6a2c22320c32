"""Where arrays and tables lie: volumes, formats, tables, files, and what tells that an input is the same."""
