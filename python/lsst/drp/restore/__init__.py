# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restored coadds of ground-based surveys by AstroClearNet."""

import lazy_loader

# Every call of the ``butler`` command imports this package for its subcommands,
# so that modules are imported when one of their names is asked for.  The names
# are those of __init__.pyi.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
