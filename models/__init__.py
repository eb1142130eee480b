"""Structure → dielectric tensors with an error bar: encoder, readout, training, ensemble."""
