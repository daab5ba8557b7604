"""Drawing: SVG as text, and the colours of light and dark backgrounds."""
