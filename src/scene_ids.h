/*
 * scene_ids.h
 *		Ascending ids of scenes: is one of them among those that a role may see?
 *
 * It is asked for each task that is looked at, so it is found by halving.
 * The including file includes postgres.h first.
 */
#ifndef RETRY_SCENE_IDS_H
#define RETRY_SCENE_IDS_H

static inline int
retry_scene_ids_compare(const void *a, const void *b)
{
	int32		x = *(const int32 *) a;
	int32		y = *(const int32 *) b;

	return x < y ? -1 : x > y;
}

static inline void
retry_scene_ids_sort(int32 *ids, int n)
{
	qsort(ids, n, sizeof(int32), retry_scene_ids_compare);
}

static inline bool
retry_scene_ids_has(const int32 *ids, int n, int32 id)
{
	return n > 0 && bsearch(&id, ids, n, sizeof(int32), retry_scene_ids_compare) != NULL;
}

#endif							/* RETRY_SCENE_IDS_H */
