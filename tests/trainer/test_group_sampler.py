"""The order in which the rows of groups come."""

import itertools

from sage_trl.trainer.group_sampler import GroupSampler


def test_rows_of_a_group_stay_together_in_a_new_order_every_epoch():
    names = [f"g{index % 5}" for index in range(20)]
    sampler = GroupSampler(names, seed=3)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert sorted(order) == list(range(20))
        groups = [names[index] for index in order]
        assert sum(one != other for one, other in itertools.pairwise(groups)) == 4
        orders.append(groups)
    assert orders[0] != orders[1]
    sampler.set_epoch(1)
    assert [names[index] for index in sampler] == orders[1]
    assert len(sampler) == 20
