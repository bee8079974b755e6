"""Class maps as files of the tools in which people draw; the readers of `hsl.data.formats` read them back."""
