/*
 * scene_secret.c
 *		What a scene needs of its group's secrets, and whom it may tell them.
 *
 * All of it is decided when the configuration is read, so that an attempt only
 * signs.  A scene that needs a secret which is not set is treated as paused:
 * its tasks wait, and go on by themselves when the configuration is read again
 * because it was set.
 */
#include "postgres.h"

#include "scene_secret.h"
#include "scene_tls.h"
#include "sqltarget.h"
#include "url.h"

/* Shorter values are not looked for: too much that is none would be hidden. */
#define MASKED_LEAST	8

bool
retry_scene_needs_secrets(const RetryScene *scene)
{
	return scene->secret != NULL || scene->tls_cert != NULL ||
		(scene->headers != NULL && retry_headers_name_secrets(scene->headers));
}

void
retry_scene_take_secrets(RetryScene *scene, const RetrySecrets *secrets)
{
	Jsonb	   *filled;
	char	   *missing;
	int			count;

	if (!retry_scene_needs_secrets(scene))
		return;
	if (scene->secret != NULL)
	{
		scene->signing = retry_secrets_find(secrets, scene->group_id, scene->secret,
											strlen(scene->secret), &scene->nsigning);
		if (scene->signing == NULL || scene->signing->certificate ||
			(scene->secret_use == RETRY_USE_WEBHOOK && scene->signing->key.len == 0))
			scene->missing_secret = scene->secret;
		if (scene->secret_use == RETRY_USE_PAGERDUTY || scene->secret_use == RETRY_USE_EMAIL)
			scene->filled = secrets;	/* it is sent, as those in headers are */
	}
	if (scene->headers != NULL && retry_headers_name_secrets(scene->headers))
	{
		filled = retry_headers_fill(scene->headers, secrets, scene->group_id, &missing);
		if (filled == NULL)
			scene->missing_secret = missing;
		else
			scene->headers = filled;
		scene->filled = secrets;
	}
	if (scene->tls_cert != NULL)
	{
		const RetrySecret *secret = retry_secrets_find(secrets, scene->group_id, scene->tls_cert,
													   strlen(scene->tls_cert), &count);

		if (secret != NULL && secret->certificate)
			scene->tls->identity = secret->value;
		else
			scene->missing_secret = scene->tls_cert;
	}
	if (scene->missing_secret != NULL)
		scene->paused = true;
}

void
retry_scene_mask(const RetryScene *scene, char *answer, size_t len)
{
	if (scene == NULL || scene->filled == NULL)
		return;
	for (int i = 0; i < scene->filled->count; i++)
	{
		const RetrySecret *secret = &scene->filled->list[i];
		char	   *end = answer + len;
		char	   *at = answer;

		if (secret->group_id != scene->group_id || secret->value_len < MASKED_LEAST)
			continue;
		while ((at = memmem(at, end - at, secret->value, secret->value_len)) != NULL)
		{
			memset(at, '*', secret->value_len);
			at += secret->value_len;
		}
	}
}

static bool
same_origin(const RetryUrl *url, const char *other)
{
	RetryUrl	parsed;
	char		why[256];

	return retry_url_check(other, &parsed, why, sizeof(why)) && strcmp(url->origin, parsed.origin) == 0;
}

bool
retry_scene_may_call(const RetryScene *scene, const char *url)
{
	RetryUrl	parsed;
	char		why[256];

	if ((scene->filled == NULL && !retry_scene_tls_binds(scene)) || retry_is_sql_target(url))
		return true;
	if (!retry_url_check(url, &parsed, why, sizeof(why)))
		return false;
	if (scene->url != NULL && same_origin(&parsed, scene->url))
		return true;
	for (int i = 0; i < scene->ntargets; i++)
	{
		if (same_origin(&parsed, scene->targets[i].url))
			return true;
	}
	return false;
}
