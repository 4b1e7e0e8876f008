"""The 1x schedule for 16 images a step, and what the training loop reads."""

from resnest_d2.config import load_stock_lazy_config

optimizer = load_stock_lazy_config("common/optim.py").SGD
lr_multiplier = load_stock_lazy_config("common/coco_schedule.py").lr_multiplier_1x

train = load_stock_lazy_config("common/train.py").train
train.init_checkpoint = "resnest://resnest50_detectron"
train.eval_period = 0  # after the last step only
train.precise_bn = dict(enabled=True, num_iter=200)
