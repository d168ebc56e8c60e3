"""The catalogue of topics: what lies in them, who writes and reads them, and what hangs on each field."""
