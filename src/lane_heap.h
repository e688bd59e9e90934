/*
 * lane_heap.h
 *		A heap of nodes that lie in what they stand for.
 *
 * Lanes wait for moments (something is due, a gate opens) and for their turn,
 * and there may be a hundred thousand of them: the first is found at once, and
 * any of them can be put elsewhere or taken out in a logarithm of their number.
 * Everything is inline: four heaps in three files use it, in the hot path.
 *
 * Not thread-safe; no errors but those of palloc.
 */
#ifndef RETRY_LANE_HEAP_H
#define RETRY_LANE_HEAP_H

/* Part of what is in a heap; index -1: it is in none. */
typedef struct RetryHeapNode
{
	int64		key;			/* the smallest is first */
	uint64		tie;			/* among equal ones */
	int32		index;
} RetryHeapNode;

/* What a node is part of. */
#define retry_heap_container(type, member, node) \
	((type *) ((char *) (node) - offsetof(type, member)))

typedef struct RetryHeap
{
	RetryHeapNode **nodes;
	int32		len;
	int32		size;
} RetryHeap;

/* Its memory comes from the context that is current now. */
static inline void
retry_heap_init(RetryHeap *heap)
{
	heap->len = 0;
	heap->size = 64;
	heap->nodes = palloc(heap->size * sizeof(RetryHeapNode *));
}

static inline void
retry_heap_node_init(RetryHeapNode *node)
{
	node->index = -1;
}

static inline bool
retry_heap_has(const RetryHeapNode *node)
{
	return node->index >= 0;
}

static inline bool
retry_heap_before(const RetryHeapNode *a, const RetryHeapNode *b)
{
	return a->key != b->key ? a->key < b->key : a->tie < b->tie;
}

static inline void
retry_heap_place(RetryHeap *heap, RetryHeapNode *node, int32 i)
{
	heap->nodes[i] = node;
	node->index = i;
}

/* Finds the place of a node that may be anywhere below or above i. */
static inline void
retry_heap_settle(RetryHeap *heap, RetryHeapNode *node, int32 i)
{
	while (i > 0 && retry_heap_before(node, heap->nodes[(i - 1) / 2]))
	{
		retry_heap_place(heap, heap->nodes[(i - 1) / 2], i);
		i = (i - 1) / 2;
	}
	for (;;)
	{
		int32		child = 2 * i + 1;

		if (child >= heap->len)
			break;
		if (child + 1 < heap->len && retry_heap_before(heap->nodes[child + 1], heap->nodes[child]))
			child++;
		if (!retry_heap_before(heap->nodes[child], node))
			break;
		retry_heap_place(heap, heap->nodes[child], i);
		i = child;
	}
	retry_heap_place(heap, node, i);
}

/* Puts a node in, or elsewhere when it is in this heap already. */
static inline void
retry_heap_put(RetryHeap *heap, RetryHeapNode *node, int64 key, uint64 tie)
{
	node->key = key;
	node->tie = tie;
	if (node->index < 0)
	{
		if (heap->len == heap->size)
		{
			heap->size *= 2;
			heap->nodes = repalloc(heap->nodes, heap->size * sizeof(RetryHeapNode *));
		}
		node->index = heap->len++;
	}
	retry_heap_settle(heap, node, node->index);
}

/* Takes it out, if it is in. */
static inline void
retry_heap_remove(RetryHeap *heap, RetryHeapNode *node)
{
	int32		i = node->index;
	RetryHeapNode *last;

	if (i < 0)
		return;
	node->index = -1;
	last = heap->nodes[--heap->len];
	if (last != node)
		retry_heap_settle(heap, last, i);
}

/* The first node, or NULL. */
static inline RetryHeapNode *
retry_heap_first(const RetryHeap *heap)
{
	return heap->len > 0 ? heap->nodes[0] : NULL;
}

#endif							/* RETRY_LANE_HEAP_H */
