"""Wire protocols of attendance terminals, door controllers, readers and cameras.

Says what a device said and does what it is told; knows no people and no rules.
"""
