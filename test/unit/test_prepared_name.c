/*
 * test_prepared_name.c
 *		Names of prepared transactions are read as they were written, and what
 *		only looks like one is none.
 *
 * Who reads a name of ours rolls back what nobody wants any more, so a name that
 * somebody else has chosen must never be taken for one.
 */
#include "postgres.h"

#include "../../src/prepared_name.h"
#include "check.h"

static void
check_round(uint64_t system, uint32_t database, int branch, uint64_t xid, const char *want)
{
	RetryPreparedName name = {.system = system,.database = database,.branch = branch,.xid = xid};
	RetryPreparedName got;
	char		text[RETRY_PREPARED_NAME_MAX];

	memset(&got, 0, sizeof(got));
	for (int i = 0; i < 16; i++)
		name.gid[i] = (unsigned char) (i * 17);
	retry_prepared_name_write(&name, text);
	CHECK(strcmp(text, want) == 0, "written: %s (got %s)", want, text);
	CHECK(retry_prepared_name_read(text, &got) && got.system == system && got.database == database &&
		  got.branch == branch && got.xid == xid && memcmp(got.gid, name.gid, 16) == 0,
		  "read again: %s", text);
}

static void
check_none(const char *text)
{
	/* a block of exactly its size, for the sanitizers */
	char	   *copy = strdup(text);
	RetryPreparedName name;

	CHECK(!retry_prepared_name_read(copy, &name), "no name of ours: %s", text);
	free(copy);
}

int
main(void)
{
	check_round(7301, 5, 1, 753, "retry_7301_5_00112233-4455-6677-8899-aabbccddeeff_1_753");
	check_round(0, 0, 0, 0, "retry_0_0_00112233-4455-6677-8899-aabbccddeeff_0_0");
	check_round(UINT64_MAX, UINT32_MAX, INT32_MAX, UINT64_MAX,
				"retry_18446744073709551615_4294967295_00112233-4455-6677-8899-aabbccddeeff_2147483647_18446744073709551615");

	check_none("");
	check_none("retry");
	check_none("retry_");
	check_none("retry_7301");
	check_none("retry_7301_5_");
	check_none("retry_7301_5_0011");
	check_none("retry_7301_5_00112233-4455-6677-8899-aabbccddeeff");
	check_none("retry_7301_5_00112233-4455-6677-8899-aabbccddeeff_1");
	check_none("retry_7301_5_00112233-4455-6677-8899-aabbccddeeff_1_");
	check_none("retry_7301_5_00112233-4455-6677-8899-aabbccddeeff_1_753 ");
	check_none("retry_7301_5_00112233-4455-6677-8899-aabbccddeeff_1_753_1");
	check_none("retry_7301_5_00112233-4455-6677-8899-AABBCCDDEEFF_1_753");
	check_none("retry_7301_5_00112233445566778899aabbccddeeff_1_753");
	check_none("retry_7301_5_0011-2233-4455-6677-8899-aabbccddeeff_1_753");
	check_none("retry_07301_5_00112233-4455-6677-8899-aabbccddeeff_1_753");
	check_none("retry_7301_5_00112233-4455-6677-8899-aabbccddeeff_-1_753");
	check_none("retry_7301_5_00112233-4455-6677-8899-aabbccddeeff_+1_753");
	check_none("retry_7301_5_00112233-4455-6677-8899-aabbccddeeff_1_ 753");
	check_none("retry_7301_4294967296_00112233-4455-6677-8899-aabbccddeeff_1_753");
	check_none("retry_7301_5_00112233-4455-6677-8899-aabbccddeeff_2147483648_753");
	check_none("retry_18446744073709551616_5_00112233-4455-6677-8899-aabbccddeeff_1_753");
	check_none("Retry_7301_5_00112233-4455-6677-8899-aabbccddeeff_1_753");
	check_none("xretry_7301_5_00112233-4455-6677-8899-aabbccddeeff_1_753");
	return check_done();
}
