-- A role that serves need not own the tables: it makes and drops partitions through functions of the owner. Names are
-- looked up in this schema alone, whatever the caller has in front of it.
CREATE FUNCTION drop_journal_partition(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
$$
BEGIN
    EXECUTE format('DROP TABLE %I', format('journal_%s', to_char(day, 'YYYYMMDD')));
END
$$;

ALTER FUNCTION make_journal_partitions(integer) SECURITY DEFINER;

DO
$$
DECLARE
    here text := format('%I, pg_temp', current_schema());
BEGIN
    EXECUTE format('ALTER FUNCTION make_journal_partitions(integer) SET search_path = %s', here);
    EXECUTE format('ALTER FUNCTION drop_journal_partition(date) SET search_path = %s', here);
END
$$;

REVOKE ALL ON FUNCTION make_journal_partitions(integer), drop_journal_partition(date) FROM PUBLIC;
