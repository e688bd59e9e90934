/*
 * route_check.c
 *		retry.check_targets(): the targets of a scene, judged when written.
 *
 * A target that cannot be called would only be met by a dispatcher, which has
 * nobody to tell; so the constraint of the column refuses the whole array, and
 * says which of its elements is wrong and why.
 */
#include "postgres.h"

#include "fmgr.h"

#include "arguments.h"
#include "compat.h"
#include "quote.h"
#include "route.h"

PG_FUNCTION_INFO_V1(retry_check_targets);

#define TARGETS_HINT \
	"Each target is 'URL' or 'URL weight=N', N from 1 to 1000."

/* A text that may hold a password is shown by its number only. */
static void
check_element(const char *element, int number, void *arg)
{
	const char **urls = arg;
	char		why[RETRY_ROUTE_ERROR];
	char	   *url;
	int			len;
	int32		weight;

	if (!retry_route_parse_target(element, &len, &weight, why, sizeof(why)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 strchr(element, '@') != NULL ?
				 errmsg("element %d of targets is invalid: %s", number, why) :
				 errmsg("element %d of targets, \"%s\", is invalid: %s", number, retry_quoted_string(element), why),
				 errhint(TARGETS_HINT)));
	url = pnstrdup(element, len);
	for (int i = 0; i < number - 1; i++)
	{
		if (strcmp(urls[i], url) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("targets name \"%s\" twice", retry_quoted_string(url)),
					 errhint("A target's share of the work is its weight.")));
	}
	urls[number - 1] = url;
}

/* retry.check_targets(targets): for the constraint of retry.scene. */
Datum
retry_check_targets(PG_FUNCTION_ARGS)
{
	static const RetryArrayRules rules = {
		"targets", RETRY_ROUTE_TARGETS_MAX, "Use NULL for none.", TARGETS_HINT
	};
	const char *urls[RETRY_ROUTE_TARGETS_MAX];

	if (!PG_ARGISNULL(0))
		retry_check_elements(PG_GETARG_ARRAYTYPE_P(0), &rules, check_element, urls);
	PG_RETURN_BOOL(true);
}
