/*
 * scene_mail.c
 *		Scenes that send mail, and the checks of channels of that kind.
 *
 * A task of such a scene has a subject and a text as its body, and perhaps one of
 * the recipients that the scene names; no others, so that whoever may enqueue
 * cannot write to whom he likes.  Its mail is made afresh for each attempt, and
 * is the same each time: id and date are the task's.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "arguments.h"
#include "mail_message.h"
#include "scene.h"
#include "scene_mail.h"

/* Recipients of a channel. */
#define RECIPIENTS_MAX	50

#define MAILBOX_HINT "Write ada@example.com, or Ada Lovelace <ada@example.com>."

PG_FUNCTION_INFO_V1(retry_check_mail_url);
PG_FUNCTION_INFO_V1(retry_check_mailbox);
PG_FUNCTION_INFO_V1(retry_check_mailboxes);
PG_FUNCTION_INFO_V1(retry_check_mail_client);

static char *
member(Jsonb *object, const char *name)
{
	JsonbValue *value = getKeyJsonValueFromContainer(&object->root, name, strlen(name), NULL);

	return value != NULL && value->type == jbvString ? pnstrdup(value->val.string.val, value->val.string.len) : NULL;
}

/* The strings of a member that is an array; false for anything else. */
static bool
members(Jsonb *object, const char *name, RetrySceneMail *mail)
{
	JsonbValue *array = getKeyJsonValueFromContainer(&object->root, name, strlen(name), NULL);

	if (array == NULL || array->type != jbvBinary || !JsonContainerIsArray(array->val.binary.data))
		return false;
	mail->to_count = JsonContainerSize(array->val.binary.data);
	mail->to = palloc(Max(mail->to_count, 1) * sizeof(char *));
	for (int i = 0; i < mail->to_count; i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(array->val.binary.data, i);

		if (element->type != jbvString)
			return false;
		mail->to[i] = pnstrdup(element->val.string.val, element->val.string.len);
	}
	return mail->to_count > 0;
}

bool
retry_scene_read_mail(const Datum *values, const bool *isnull, RetryScene *scene)
{
	RetrySceneMail *mail;
	Jsonb	   *object;

	if (isnull[Scene_mail])
		return true;
	object = DatumGetJsonbP(values[Scene_mail]);
	mail = palloc0(sizeof(RetrySceneMail));
	if (!JB_ROOT_IS_OBJECT(object) || (mail->url = member(object, "url")) == NULL ||
		(mail->from = member(object, "from")) == NULL || !members(object, "to", mail))
		return false;
	mail->user = member(object, "user");
	scene->mail = mail;
	return true;
}

/* In UTF-8, as all that is sent; scenes are in the database's encoding. */
static const char *
to_utf8(const char *text)
{
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

bool
retry_scene_mail_write(const RetryScene *scene, const pg_uuid_t *id, TimestampTz at, RetryPrepared *prepared)
{
	const RetrySceneMail *from = scene->mail;
	RetryHttpRequest *http = &prepared->http;
	RetryHttpMail *envelope = palloc0(sizeof(RetryHttpMail));
	const char **to = palloc(from->to_count * sizeof(char *));
	RetryMailFields fields;
	RetryMail	mail = {.to = to,.to_count = from->to_count};
	char	   *text;

	if (!retry_mail_fields(http->has_body ? http->body : "", http->body_len, palloc(http->body_len + 3),
						   &fields, &prepared->why))
		return false;
	for (int i = 0; i < from->to_count; i++)
	{
		to[i] = to_utf8(from->to[i]);
		if (fields.to != NULL && strcmp(fields.to, to[i]) == 0)
			mail.only = to[i];
	}
	if (fields.to != NULL && mail.only == NULL)
	{
		prepared->why = "it is a mail to somebody who is not among the recipients of its channel";
		return false;
	}
	mail.from = to_utf8(from->from);
	mail.subject = fields.subject;
	mail.text = fields.text;
	mail.id = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
	mail.unix_time = at / USECS_PER_SEC +
		(int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
	text = palloc(retry_mail_room(&mail));
	http->body = text;
	http->body_len = retry_mail_write(&mail, text, &envelope->script_len);
	if (http->body_len == 0)
	{
		prepared->why = "a sender or recipient of its channel cannot be read";
		return false;
	}
	prepared->why = NULL;
	if (from->user != NULL)
	{
		envelope->user = to_utf8(from->user);
		envelope->password = scene->nsigning > 0 ? to_utf8(scene->signing[0].value) : "";
	}
	http->mail = envelope;
	return true;
}

/* retry.check_mail_url(url): for the constraint of retry.channel. */
Datum
retry_check_mail_url(PG_FUNCTION_ARGS)
{
	char		why[256];

	if (!PG_ARGISNULL(0) &&
		!retry_url_check_mail(text_to_cstring(PG_GETARG_TEXT_PP(0)), NULL, why, sizeof(why)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s", why),
				 errhint("A mail server is smtps://host (TLS), smtp://host (TLS by STARTTLS) or smtp+plaintext://host (no TLS), with :port or without.")));
	PG_RETURN_BOOL(true);
}

static void
check_mailbox(const char *text, const char *what)
{
	RetryMailbox mailbox;
	char		why[256];

	if (!retry_mailbox_parse(to_utf8(text), &mailbox, why, sizeof(why)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s\"%.*s\" is no address of mail: %s", what,
						pg_mbcliplen(text, strlen(text), 100), text, why),
				 errhint(MAILBOX_HINT)));
}

/* retry.check_mailbox(text): likewise. */
Datum
retry_check_mailbox(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(0))
		check_mailbox(text_to_cstring(PG_GETARG_TEXT_PP(0)), "");
	PG_RETURN_BOOL(true);
}

static void
check_recipient(const char *element, int number, void *arg)
{
	check_mailbox(element, psprintf("element %d, ", number));
}

/* retry.check_mailboxes(text[]): likewise; there must be some. */
Datum
retry_check_mailboxes(PG_FUNCTION_ARGS)
{
	static const RetryArrayRules rules = {
		"mail_to", RECIPIENTS_MAX, "Give at least one.", MAILBOX_HINT
	};

	if (!PG_ARGISNULL(0))
		retry_check_elements(PG_GETARG_ARRAYTYPE_P(0), &rules, check_recipient, NULL);
	PG_RETURN_BOOL(true);
}

/* retry.check_mail_client(): true, or an error when this libcurl sends no mail. */
Datum
retry_check_mail_client(PG_FUNCTION_ARGS)
{
	if (!retry_http_sends_mail())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("this server's libcurl cannot send mail"),
				 errhint("It was built without SMTP; curl-config --protocols lists what it has.")));
	PG_RETURN_BOOL(true);
}
