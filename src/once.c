/*
 * once.c
 *		retry.once(): tells a receiver inside PostgreSQL whether it has had a
 *		message before.
 *
 * Delivery is at-least-once, so a receiver must recognize a message that comes
 * again.  One that acts in a database can do that exactly, if what it notes and
 * what it does commit together: the note is a row of retry.consumed, and its
 * primary key makes a second caller wait until the first has ended.
 *
 * The calling role is part of the key.  So no role can take a message from
 * another's consumer of the same name, nor learn what that has had.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "arguments.h"
#include "compat.h"
#include "access.h"
#include "enqueue_options.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(retry_once);

/* Bytes of a message's id: the sender's choice, and a key of an index. */
#define MESSAGE_ID_MAX	1024

static const char *const note_message =
"INSERT INTO retry.consumed (role, consumer, message_id) VALUES ($1, $2, $3)"
" ON CONFLICT DO NOTHING";

/* The statement, prepared at the first call in a session. */
static SPIPlanPtr
prepared(void)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[3] = {OIDOID, TEXTOID, TEXTOID};

	if (plan == NULL)
	{
		SPIPlanPtr	made = SPI_prepare(note_message, 3, types);

		if (made == NULL || SPI_keepplan(made) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not prepare a statement on retry.consumed: %s",
							SPI_result_code_string(SPI_result))));
		plan = made;
	}
	return plan;
}

/* A null would pass for "not the first time", and the message be lost. */
static text *
argument(FunctionCallInfo fcinfo, int number, const char *name)
{
	retry_require_argument(fcinfo, number, name);
	return PG_GETARG_TEXT_PP(number);
}

static void
check_message_id(const text *id)
{
	int			len = VARSIZE_ANY_EXHDR(id);

	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("message_id is empty"),
				 errhint("Messages of retry name themselves in the headers webhook-id and Idempotency-Key.")));
	if (len > MESSAGE_ID_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("message_id of %d bytes is longer than %d bytes", len, MESSAGE_ID_MAX)));
}

/*
 * retry.once(consumer, message_id).  In a transaction that keeps its snapshot,
 * a row that it cannot see is a serialization failure, raised by the INSERT.
 */
Datum
retry_once(PG_FUNCTION_ARGS)
{
	text	   *consumer = argument(fcinfo, 0, "consumer");
	text	   *message_id = argument(fcinfo, 1, "message_id");
	Datum		values[3] = {
		ObjectIdGetDatum(GetUserId()), PointerGetDatum(consumer), PointerGetDatum(message_id)
	};
	RetryRoleSwitch caller;
	int			rc;
	bool		first;

	retry_check_short_text("consumer", consumer);
	check_message_id(message_id);
	retry_require_writable("retry.once()");

	retry_statement_connect();
	retry_become_owner(&caller);
	rc = SPI_execute_plan(prepared(), values, NULL, false, 0);
	if (rc < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not write to retry.consumed: %s", SPI_result_code_string(rc))));
	first = SPI_processed == 1;
	retry_become_caller(&caller);
	SPI_finish();
	PG_RETURN_BOOL(first);
}
