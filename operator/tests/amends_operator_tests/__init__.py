"""The operator's own tests. A package, because pytest would otherwise call it `operator`, as Python's own module is."""
