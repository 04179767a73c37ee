"""What runs inside a sandbox: stdlib, msgpack and the codec, nothing else of ours (I/O).

Copied, not installed, into the sandbox by `company.sandbox.site`; every stdlib module is imported before the user's
package is on the path, so that a file of theirs called ``traceback.py`` breaks only themselves.
"""
