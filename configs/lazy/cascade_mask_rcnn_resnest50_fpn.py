from .common.data import masks as dataloader
from .common.models import cascade_mask_rcnn as model
from .common.train import lr_multiplier, optimizer, train
