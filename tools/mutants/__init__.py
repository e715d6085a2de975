"""Makes small mistakes on purpose in the code where a mistake costs money, and tells which ones no test notices."""
