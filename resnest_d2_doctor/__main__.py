import sys

from .command import doctor

sys.exit(doctor(sys.argv[1:]))
