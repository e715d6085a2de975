"""The texts of messages; `letters.py` reads them."""
