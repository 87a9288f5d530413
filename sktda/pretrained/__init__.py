"""Pretrained nets that are on this machine, frozen, as features of images and texts."""
