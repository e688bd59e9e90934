/*
 * digest.c
 *		Keys that are made from what a task says; see digest.h.
 *
 * The scene is in it by its full name, so that "scene" and "default/scene" are
 * the same and a plain URL is what it always is, a task of the scene default
 * with a URL of its own.  Everything else of a task (headers, limits, when it is
 * due) is how it is sent, not what it says, and is left out.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "compat.h"
#include "digest.h"
#include "enqueue.h"
#include "quote.h"
#include "target.h"

PG_FUNCTION_INFO_V1(retry_digest_key);

text *
retry_make_digest_key(const char *group, const char *scene, const text *url, const char *body, Size len)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	char	   *head = psprintf("%s/%s\n", group, scene);
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	text	   *key = palloc(VARHDRSZ + 2 * PG_SHA256_DIGEST_LENGTH);

	if (ctx == NULL ||
		pg_cryptohash_init(ctx) < 0 ||
		pg_cryptohash_update(ctx, (const uint8 *) head, strlen(head)) < 0 ||
		(url != NULL && pg_cryptohash_update(ctx, (const uint8 *) VARDATA_ANY(url),
											 VARSIZE_ANY_EXHDR(url)) < 0) ||
		pg_cryptohash_update(ctx, (const uint8 *) "\n", 1) < 0 ||
		(len > 0 && pg_cryptohash_update(ctx, (const uint8 *) body, len) < 0) ||
		pg_cryptohash_final(ctx, digest, sizeof(digest)) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute the SHA-256 of a task's target and payload")));
	pg_cryptohash_free(ctx);
	pfree(head);

	hex_encode((const char *) digest, sizeof(digest), VARDATA(key));
	SET_VARSIZE(key, VARHDRSZ + 2 * PG_SHA256_DIGEST_LENGTH);
	return key;
}

/*
 * retry.digest_key(target, payload): null only with a null target.  It reads
 * no table, so whether there is such a scene is not its business.
 */
Datum
retry_digest_key(PG_FUNCTION_ARGS)
{
	char		group[RETRY_NAME_MAX + 1] = RETRY_DEFAULT_NAME;
	char		scene[RETRY_NAME_MAX + 1] = RETRY_DEFAULT_NAME;
	text	   *target;
	char	   *given;
	bytea	   *body = NULL;
	bool		is_scene;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	target = PG_GETARG_TEXT_PP(0);
	given = text_to_cstring(target);
	is_scene = retry_target_names_scene(given);
	if (is_scene && !retry_scene_parse(given, group, scene))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid target: \"%s\"", retry_quoted_string(given)),
				 errhint("A target is an http or https URL, scene, or group/scene.")));
	if (!PG_ARGISNULL(1))
		body = retry_payload_body(PG_GETARG_JSONB_P(1));
	PG_RETURN_TEXT_P(retry_make_digest_key(group, scene, is_scene ? NULL : target,
										   body != NULL ? VARDATA(body) : NULL,
										   body != NULL ? VARSIZE(body) - VARHDRSZ : 0));
}
