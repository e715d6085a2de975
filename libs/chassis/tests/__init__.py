"""The suite of the chassis: real servers, channels and databases."""
