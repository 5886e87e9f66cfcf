"""`emor3 demo`: a local page on which models look at one image, in Gradio."""
