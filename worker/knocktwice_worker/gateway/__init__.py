"""The gateway, the HTTP face: what applications in other languages call, and what devices and providers report to.

An answer of 202 means what it means in the producer library: the message is in the broker twice, as safely as its
header ``Knocktwice-Durability`` says, and no worker that dies loses it. Bodies are checked by the contract's own
validator, so an error names the same field in every language.

``http/`` bounds a request, ``auth/`` knows the keys, ``intake/`` takes what comes from the event loop to durable
storage, ``routes/`` has one file per group of addresses, ``faces/`` the interfaces of other products. It may use the
producer and every room below the tasks. It
decides nothing about notifications, and no room but the command line knows it.
"""
