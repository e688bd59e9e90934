/*
 * scene_tls.c
 *		What a scene asks of TLS, and the checks of it when it is stored.
 *
 * That certificates are verified is promised to whoever runs the server, so a
 * scene may be excepted by a superuser only.  A trigger sees to it, and notes who
 * it was; here it is asked again, since rows can get past triggers, and people
 * lose their rights.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "compat.h"
#include "pem.h"
#include "scene.h"
#include "scene_tls.h"

PG_FUNCTION_INFO_V1(retry_check_certificates);

static char *
text_of(const Datum *values, const bool *isnull, int column)
{
	return isnull[column] ? NULL : TextDatumGetCString(values[column]);
}

/* False of NULL too. */
static bool
is_superuser_name(const char *name)
{
	Oid			role = name != NULL ? get_role_oid(name, true) : InvalidOid;

	return OidIsValid(role) && superuser_arg(role);
}

bool
retry_scene_read_tls(const Datum *values, const bool *isnull, RetryScene *scene, const char **wrong)
{
	RetryTls	tls = {0};
	char	   *least = text_of(values, isnull, Scene_tls_min_version);

	*wrong = "tls_min_version";
	if (least == NULL || (strcmp(least, "1.2") != 0 && strcmp(least, "1.3") != 0))
		return false;
	tls.from_1_3 = strcmp(least, "1.3") == 0;
	tls.unverified = !DatumGetBool(values[Scene_tls_verify]) && is_superuser_name(text_of(values, isnull, Scene_tls_unverified_by));
	tls.authorities = text_of(values, isnull, Scene_tls_ca);
	tls.pins = text_of(values, isnull, Scene_tls_pin);
	scene->tls_cert = text_of(values, isnull, Scene_tls_cert);
	if (tls.from_1_3 || tls.unverified || tls.authorities != NULL || tls.pins != NULL ||
		scene->tls_cert != NULL)
	{
		scene->tls = palloc(sizeof(RetryTls));
		*scene->tls = tls;
	}
	return true;
}

bool
retry_scene_tls_binds(const RetryScene *scene)
{
	return scene->tls != NULL && (scene->tls->unverified || scene->tls_cert != NULL);
}

/* retry.check_certificates(pem): for the constraint of retry.scene. */
Datum
retry_check_certificates(PG_FUNCTION_ARGS)
{
	text	   *pem;
	char		why[256];

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(true);
	pem = PG_GETARG_TEXT_PP(0);
	if (VARSIZE_ANY_EXHDR(pem) > RETRY_PEM_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("certificates have %d bytes, more than %d",
						(int) VARSIZE_ANY_EXHDR(pem), RETRY_PEM_MAX_BYTES)));
	if (!retry_pem_check_authorities(VARDATA_ANY(pem), VARSIZE_ANY_EXHDR(pem), why, sizeof(why)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the text is no list of certificates: %s", why),
				 errhint("Give the certificates of the authorities in PEM form, -----BEGIN CERTIFICATE----- and so on.")));
	PG_RETURN_BOOL(true);
}
