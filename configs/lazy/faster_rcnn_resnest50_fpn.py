from .common.data import boxes as dataloader
from .common.models import faster_rcnn as model
from .common.train import lr_multiplier, optimizer, train
