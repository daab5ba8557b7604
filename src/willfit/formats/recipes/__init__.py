"""One module per quantization method: from its config to a `Recipe`.

Each module has `from_config(quant, dtype) -> Recipe`. A method is added as one module here and one line in
`willfit.formats.recognise.METHODS`.
"""
