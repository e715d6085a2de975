"""The shop's customers service: where bills and parcels go, and what can be charged."""
