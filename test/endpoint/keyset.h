/*
 * keyset.h
 *		What has been seen of each key: how often, and whether it succeeded.
 *
 * One open-addressed table of 64-bit hashes: a million keys cost 32 MB and a
 * look-up one cache miss, so that duplicates are counted even in the fast
 * mode. Used twice: for Idempotency-Keys, and for "key at this path", which
 * is what /flaky and its like count by.
 */
#ifndef ENDPOINT_KEYSET_H
#define ENDPOINT_KEYSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct KeyEntry
{
	uint64_t	hash;			/* 0 = free */
	uint32_t	seen;			/* how many requests so far */
	bool		succeeded;		/* one of them was answered 2xx */
} KeyEntry;

typedef struct KeySet
{
	KeyEntry   *slot;
	size_t		size;			/* a power of two */
	size_t		used;
} KeySet;

/* The entry of a hash, made when absent. Valid until the next call. */
extern KeyEntry *keyset_get(KeySet *set, uint64_t hash);
extern void keyset_clear(KeySet *set);

#endif							/* ENDPOINT_KEYSET_H */
