"""The way in of `make pictures`."""

from pictures.gallery import main

main()
