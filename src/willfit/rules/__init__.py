"""Rules of thumb that people use, one module each, to show beside a real estimate."""
