"""The 1x schedule for 16 images a step, and what the training loop reads."""

from detectron2.model_zoo import get_config

optimizer = get_config("common/optim.py").SGD
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_1x

train = get_config("common/train.py").train
train.init_checkpoint = "resnest://resnest50_detectron"
train.eval_period = 0  # after the last step only
train.precise_bn = dict(enabled=True, num_iter=200)
