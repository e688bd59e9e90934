/*
 * lane_name.c
 *		Hashes the names of lanes.
 *
 * Enqueue computes it once for each task, and it is stored with the task: the
 * value is part of the data on disk, so what goes into the hash, and in which
 * order, must never change.  That is why it is kept apart, with a test that
 * knows values by heart.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"

#include "lane_name.h"

/* Names longer than this are not remembered; no origin is. */
#define REMEMBERED_MAX	288

static bool
compute(int32 group_id, char kind, const char *name, size_t name_len, int64 *hash)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint8		prefix[5];
	uint64		result = 0;
	bool		ok;

	if (ctx == NULL)
		return false;

	for (int i = 0; i < 4; i++)
		prefix[i] = (uint8) ((uint32) group_id >> (24 - 8 * i));
	prefix[4] = (uint8) kind;

	ok = pg_cryptohash_init(ctx) >= 0 &&
		pg_cryptohash_update(ctx, prefix, sizeof(prefix)) >= 0 &&
		pg_cryptohash_update(ctx, (const uint8 *) name, name_len) >= 0 &&
		pg_cryptohash_final(ctx, digest, sizeof(digest)) >= 0;
	pg_cryptohash_free(ctx);

	for (int i = 0; i < 8; i++)
		result = (result << 8) | digest[i];
	*hash = (int64) result;
	return ok;
}

/* A session's tasks mostly go the same way: the last hash is remembered. */
bool
retry_lane_hash(int32 group_id, char kind, const char *name, size_t name_len, int64 *hash)
{
	static struct
	{
		bool		known;
		char		kind;
		int32		group_id;
		size_t		name_len;
		int64		hash;
		char		name[REMEMBERED_MAX];
	}			last;

	if (last.known && last.group_id == group_id && last.kind == kind &&
		last.name_len == name_len && memcmp(last.name, name, name_len) == 0)
	{
		*hash = last.hash;
		return true;
	}
	if (!compute(group_id, kind, name, name_len, hash))
		return false;
	if (name_len <= sizeof(last.name))
	{
		last.known = true;
		last.group_id = group_id;
		last.kind = kind;
		last.name_len = name_len;
		last.hash = *hash;
		memcpy(last.name, name, name_len);
	}
	return true;
}

bool
retry_scene_lane_hash(int32 group_id, int32 scene_id, int64 *hash)
{
	char		name[16];
	int			len = snprintf(name, sizeof(name), "%d", scene_id);

	return retry_lane_hash(group_id, RETRY_LANE_SCENE, name, len, hash);
}

bool
retry_scene_part_hash(int32 group_id, int32 scene_id, char kind,
					  const char *part, size_t part_len, int64 *hash)
{
	char	   *name = palloc(part_len + 16);
	int			len = snprintf(name, 16, "%d ", scene_id);
	bool		ok;

	memcpy(name + len, part, part_len);
	ok = retry_lane_hash(group_id, kind, name, len + part_len, hash);
	pfree(name);
	return ok;
}
