"""The card-fraud handbook's transactions through the real stream, every feature compared."""
