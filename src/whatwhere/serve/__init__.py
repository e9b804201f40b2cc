"""The web page: drop an input, see what the gates do, switch them off, compare variants.

``page`` builds it with Gradio, which is imported by ``server`` alone, after the environment is set.
"""
