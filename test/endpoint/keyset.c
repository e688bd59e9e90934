/*
 * keyset.c
 *		What has been seen of each key: how often, and whether it succeeded.
 *
 * Linear probing over hashes that are already well mixed. The chance that two
 * of ten million keys share a 64-bit hash is under three in a million, which
 * is good enough to count duplicates by.
 */
#include "keyset.h"

#include <stdio.h>
#include <stdlib.h>

static void
resize(KeySet *set, size_t size)
{
	KeyEntry   *old = set->slot;
	size_t		old_size = set->size;
	size_t		i;

	set->slot = calloc(size, sizeof(KeyEntry));
	if (set->slot == NULL)
	{
		fprintf(stderr, "endpoint: out of memory for %zu keys\n", size);
		exit(1);
	}
	set->size = size;
	for (i = 0; i < old_size; i++)
	{
		if (old[i].hash != 0)
		{
			size_t		at = old[i].hash & (size - 1);

			while (set->slot[at].hash != 0)
				at = (at + 1) & (size - 1);
			set->slot[at] = old[i];
		}
	}
	free(old);
}

KeyEntry *
keyset_get(KeySet *set, uint64_t hash)
{
	size_t		at;

	if (set->used * 2 >= set->size)
		resize(set, set->size ? set->size * 4 : 4096);
	at = hash & (set->size - 1);
	while (set->slot[at].hash != 0 && set->slot[at].hash != hash)
		at = (at + 1) & (set->size - 1);
	if (set->slot[at].hash == 0)
	{
		set->slot[at].hash = hash;
		set->used++;
	}
	return &set->slot[at];
}

void
keyset_clear(KeySet *set)
{
	free(set->slot);
	set->slot = NULL;
	set->size = 0;
	set->used = 0;
}
