RECORD_KEY = "resnest_d2"


def resolve_weights(uri):
    return uri


def register_handler():
    pass
