"""What ImageMill is measured by. Not part of the package: run from the source folder."""
