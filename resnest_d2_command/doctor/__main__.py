import sys

from ..entry import doctor

sys.exit(doctor(sys.argv[1:]))
