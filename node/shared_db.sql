-- Schema of the shared database and the statements that decide in it; each function is one round trip.
-- Nodes may only call these functions, which are in PL/pgSQL for its plans: those of SQL functions are made at each call.
-- The rule of allocation is that of node/ranges.py.

CREATE TABLE IF NOT EXISTS qc (
    name    text PRIMARY KEY,
    node_a  text NOT NULL,
    node_b  text NOT NULL,
    -- What each end holds of the epoch that is current there, and the number of the report that said so.
    epoch_a bigint NOT NULL DEFAULT 0,
    epoch_b bigint NOT NULL DEFAULT 0,
    said_a  bigint NOT NULL DEFAULT 0,
    said_b  bigint NOT NULL DEFAULT 0,
    floor_a bigint NOT NULL DEFAULT 0,
    floor_b bigint NOT NULL DEFAULT 0,
    -- The epoch that was the last to be current at both ends, the bytes of it on which they agree, the next free byte.
    epoch   bigint NOT NULL DEFAULT 0,
    floor   bigint NOT NULL DEFAULT 0,
    head    bigint NOT NULL DEFAULT 0,
    tail    bigint NOT NULL DEFAULT 0
);

-- The next free byte of epochs that others have followed, for ever: should both ends come back to one, no byte of it is
-- given out again.
CREATE TABLE IF NOT EXISTS past_epoch (
    qc    text NOT NULL,
    epoch bigint NOT NULL,
    tail  bigint NOT NULL,
    PRIMARY KEY (qc, epoch)
);

-- Blocks that an end has said that it holds in its current epoch, and that the other end has not agreed to yet.
-- `differs`: the other end has another one in its place; it stays until this end has given it up.
CREATE TABLE IF NOT EXISTS mark (
    qc       text NOT NULL,
    node     text NOT NULL,
    epoch    bigint NOT NULL,
    start_at bigint NOT NULL,
    end_at   bigint NOT NULL,
    digest   bytea NOT NULL,
    differs  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (qc, node, start_at)
);

-- What was handed out, for ever: the record that an audit replays. `request` makes a repeated call harmless.
CREATE TABLE IF NOT EXISTS allocation (
    request  uuid NOT NULL,
    position integer NOT NULL,
    qc       text NOT NULL,
    epoch    bigint NOT NULL,
    start_at bigint NOT NULL,
    end_at   bigint NOT NULL,
    node     text NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (request, position)
);

-- How a slave's KME finds a single-hop key: starting and ending position in the QC's stream.
CREATE TABLE IF NOT EXISTS key_instruction (
    key_id     uuid PRIMARY KEY,
    request    uuid NOT NULL,
    ksid       uuid NOT NULL,
    master_sae text NOT NULL,
    slave_sae  text NOT NULL,
    slave_node text NOT NULL,
    qc         text NOT NULL,
    epoch      bigint NOT NULL,
    start_at   bigint NOT NULL,
    end_at     bigint NOT NULL,
    trace      uuid,  -- W3C trace ID of whoever made it, for the journal of whoever fetches it
    delivery   uuid,
    delivered  timestamptz
);
CREATE INDEX IF NOT EXISTS key_instruction_request ON key_instruction (request);
CREATE INDEX IF NOT EXISTS key_instruction_waiting ON key_instruction (slave_node) WHERE delivery IS NULL;
CREATE INDEX IF NOT EXISTS key_instruction_delivery ON key_instruction (delivery) WHERE delivery IS NOT NULL;

-- A node speaks for itself only. Where all nodes share a role, in a database of the user's, they have to trust one another.
CREATE OR REPLACE FUNCTION qkd_check_speaker(p_node text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF session_user LIKE 'node-%' AND session_user <> 'node-' || p_node THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s cannot speak for node %s', session_user, p_node);
    END IF;
END $$;

-- A node announces a QC; the second announcement must name the same two ends.
CREATE OR REPLACE FUNCTION qkd_register_qc(p_name text, p_node text, p_peer text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM qkd_check_speaker(p_node);
    INSERT INTO qc (name, node_a, node_b) VALUES (p_name, least(p_node, p_peer), greatest(p_node, p_peer))
    ON CONFLICT (name) DO NOTHING;
    PERFORM 1 FROM qc WHERE name = p_name AND node_a = least(p_node, p_peer) AND node_b = greatest(p_node, p_peer);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'QC % is registered between other nodes', p_name;
    END IF;
END $$;

-- What one end holds of its QCs, once a slot: the current epoch, the first byte that it has not given up, and its blocks
-- that end after p_after. A report that a later one (p_number) has overtaken counts for nothing. One row a QC says up to
-- where the database knows now what is held; further rows name blocks that are others at the other end.
CREATE OR REPLACE FUNCTION qkd_report(
    p_node text, p_number bigint, p_qcs text[], p_epochs bigint[], p_floors bigint[], p_after bigint[],
    p_mark_qcs text[], p_starts bigint[], p_ends bigint[], p_digests text[]
) RETURNS TABLE (qc_name text, known bigint, start_at bigint, end_at bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    said record;
BEGIN
    PERFORM qkd_check_speaker(p_node);
    PERFORM 1 FROM qc WHERE name = ANY (p_qcs) ORDER BY name FOR UPDATE;
    UPDATE qc SET epoch_a = r.epoch, floor_a = r.floor, said_a = p_number
        FROM unnest(p_qcs, p_epochs, p_floors) AS r (name, epoch, floor)
        WHERE qc.name = r.name AND node_a = p_node AND said_a < p_number;
    UPDATE qc SET epoch_b = r.epoch, floor_b = r.floor, said_b = p_number
        FROM unnest(p_qcs, p_epochs, p_floors) AS r (name, epoch, floor)
        WHERE qc.name = r.name AND node_b = p_node AND said_b < p_number;
    -- Where both have come to a new epoch, its stream begins.
    INSERT INTO past_epoch (qc, epoch, tail)
        SELECT name, epoch, tail FROM qc WHERE name = ANY (p_qcs) AND epoch_a = epoch_b AND epoch <> epoch_a AND tail > 0
        ON CONFLICT ON CONSTRAINT past_epoch_pkey DO UPDATE SET tail = greatest(past_epoch.tail, excluded.tail);
    UPDATE qc SET
        epoch = epoch_a, floor = 0, head = 0,
        tail = coalesce((SELECT p.tail FROM past_epoch p WHERE p.qc = name AND p.epoch = epoch_a), 0)
    WHERE name = ANY (p_qcs) AND epoch_a = epoch_b AND epoch <> epoch_a;
    FOR said IN
        SELECT r.name, r.epoch, r.after FROM unnest(p_qcs, p_epochs, p_after) AS r (name, epoch, after) JOIN qc USING (name)
            WHERE p_number = CASE p_node WHEN node_a THEN said_a WHEN node_b THEN said_b END
                AND r.epoch = CASE p_node WHEN node_a THEN epoch_a ELSE epoch_b END
    LOOP
        RETURN QUERY SELECT said.name, m.known, m.start_at, m.end_at FROM qkd_compare(
            p_node, said.name, said.epoch, said.after,
            ARRAY(SELECT (r.qc, p_node, said.epoch, r.s, r.e, decode(r.digest, 'hex'), false)::mark
                FROM unnest(p_mark_qcs, p_starts, p_ends, p_digests) AS r (qc, s, e, digest) WHERE r.qc = said.name)
        ) AS m;
    END LOOP;
END $$;

-- Take in one end's blocks of a QC, which is locked, and compare them with those of the other end: see node/ranges.py.
CREATE OR REPLACE FUNCTION qkd_compare(p_node text, p_qc text, p_epoch bigint, p_after bigint, p_marks mark[])
RETURNS TABLE (known bigint, start_at bigint, end_at bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    q       qc;
    common  boolean;
    settled bigint;
    new     bigint[];
    bad     bigint[];
    there   bigint[];
    m       record;
BEGIN
    SELECT * INTO q FROM qc WHERE name = p_qc;
    common := q.epoch_a = q.epoch_b;
    settled := CASE WHEN common THEN greatest(q.floor, q.head, q.floor_a, q.floor_b)
                    WHEN p_node = q.node_a THEN q.floor_a ELSE q.floor_b END;
    DELETE FROM mark WHERE qc = p_qc AND node = p_node AND (epoch <> p_epoch OR (end_at <= settled AND NOT differs)
        OR end_at <= CASE p_node WHEN q.node_a THEN q.floor_a ELSE q.floor_b END);
    SELECT greatest(settled, max(end_at)) INTO known FROM mark WHERE qc = p_qc AND node = p_node;
    IF p_after <= known THEN
        WITH taken AS (
            INSERT INTO mark SELECT * FROM unnest(p_marks) AS r
                WHERE r.end_at > settled AND r.start_at >= 0 AND r.end_at - r.start_at BETWEEN 1 AND 1 << 20
                    AND octet_length(r.digest) = 16
                ON CONFLICT DO NOTHING RETURNING start_at)
        SELECT array_agg(start_at) INTO new FROM taken;
    END IF;
    IF new IS NOT NULL AND common THEN
        SELECT array_agg(o.start_at), array_agg(t.start_at) INTO bad, there
            FROM mark o JOIN mark t ON t.qc = p_qc AND t.node <> p_node AND t.start_at < o.end_at AND t.end_at > o.start_at
                AND t.start_at > o.start_at - (1 << 20)  -- no block is longer
                AND (t.start_at, t.end_at, t.digest) IS DISTINCT FROM (o.start_at, o.end_at, o.digest)
            WHERE o.qc = p_qc AND o.node = p_node AND o.start_at = ANY (new);
        UPDATE mark SET differs = true
            WHERE qc = p_qc AND ((node = p_node AND start_at = ANY (bad)) OR (node <> p_node AND start_at = ANY (there)));
        FOR m IN
            SELECT o.start_at, o.end_at FROM mark o JOIN mark t USING (qc, start_at, end_at, digest)
                WHERE o.qc = p_qc AND o.node = p_node AND o.start_at = ANY (new) AND t.node <> p_node
                    AND NOT o.differs AND NOT t.differs
                ORDER BY o.start_at
        LOOP
            IF m.start_at >= q.head THEN
                IF m.start_at > q.head THEN  -- what is before it is missing at an end, or differs
                    q.floor := m.start_at;
                END IF;
                q.head := m.end_at;
            END IF;
        END LOOP;
        UPDATE qc SET floor = q.floor, head = q.head WHERE name = p_qc;
    END IF;
    IF common THEN
        settled := greatest(q.floor, q.head, q.floor_a, q.floor_b);
        DELETE FROM mark WHERE qc = p_qc AND (NOT differs OR end_at <= CASE node WHEN q.node_a THEN q.floor_a ELSE q.floor_b END)
            AND end_at <= settled;
    END IF;
    -- An end whose other end is away for long is compared by the last of its blocks: others are not waited for.
    DELETE FROM mark WHERE qc = p_qc AND node = p_node AND NOT differs AND start_at < (
        SELECT l.start_at FROM mark l WHERE l.qc = p_qc AND l.node = p_node ORDER BY l.start_at DESC OFFSET 4096 LIMIT 1);
    SELECT greatest(settled, max(end_at)) INTO known FROM mark WHERE qc = p_qc AND node = p_node;
    RETURN NEXT;
    RETURN QUERY SELECT NULL::bigint, d.start_at, d.end_at FROM mark d WHERE d.qc = p_qc AND d.node = p_node AND d.differs;
END $$;

-- Ranges of p_needs[i] bytes on each QC p_qcs[i], all or nothing. Either one row a QC, or one row with short_bytes > 0
-- for the QC that lacked most. With p_key_ids the range on the first QC becomes that many keys of p_key_bytes each,
-- with an instruction for the slave's KME in the same transaction.
CREATE OR REPLACE FUNCTION qkd_allocate(
    p_request uuid, p_node text, p_qcs text[], p_needs bigint[],
    p_key_ids uuid[], p_key_bytes bigint, p_ksid uuid, p_master text, p_slave text, p_slave_node text,
    p_trace uuid DEFAULT NULL
) RETURNS TABLE (qc_name text, epoch bigint, start_at bigint, end_at bigint, short_bytes bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    starts  bigint[];
    epochs  bigint[];
    free    bigint;
    head    bigint;
    lacking bigint;
BEGIN
    PERFORM qkd_check_speaker(p_node);
    IF cardinality(p_qcs) > 1 THEN  -- in the order of names everywhere, so that two requests never wait for each other
        PERFORM 1 FROM qc WHERE name = ANY (p_qcs) ORDER BY name FOR UPDATE;
    END IF;

    short_bytes := 0;
    FOR i IN 1..cardinality(p_qcs) LOOP
        SELECT q.epoch, greatest(q.tail, q.floor, q.floor_a, q.floor_b), CASE WHEN q.epoch_a = q.epoch_b THEN q.head END
            INTO epoch, free, head FROM qc q WHERE q.name = p_qcs[i] FOR UPDATE;
        starts[i] := free;
        epochs[i] := epoch;
        lacking := p_needs[i] - greatest(0, coalesce(head - free, 0));
        IF lacking > short_bytes OR lacking = short_bytes AND p_qcs[i] < qc_name THEN
            qc_name := p_qcs[i];
            short_bytes := lacking;
        END IF;
    END LOOP;

    -- A repeated request gets what it got: its first answer was lost on the way. By then there may be too little.
    IF EXISTS (SELECT 1 FROM allocation WHERE request = p_request) THEN
        RETURN QUERY SELECT a.qc, a.epoch, a.start_at, a.end_at, 0::bigint FROM allocation a
            WHERE a.request = p_request ORDER BY a.position;
        RETURN;
    END IF;
    IF short_bytes > 0 THEN
        RETURN NEXT;
        RETURN;
    END IF;

    FOR i IN 1..cardinality(p_qcs) LOOP
        qc_name := p_qcs[i];
        epoch := epochs[i];
        start_at := starts[i];
        end_at := starts[i] + p_needs[i];
        INSERT INTO allocation (request, position, qc, epoch, start_at, end_at, node)
            VALUES (p_request, i, qc_name, epoch, start_at, end_at, p_node);
        UPDATE qc SET tail = starts[i] + p_needs[i] WHERE name = p_qcs[i];
        RETURN NEXT;
    END LOOP;
    INSERT INTO key_instruction
            (key_id, request, ksid, master_sae, slave_sae, slave_node, qc, epoch, start_at, end_at, trace)
        SELECT k.key_id, p_request, p_ksid, p_master, p_slave, p_slave_node, p_qcs[1], epochs[1],
               starts[1] + (k.i - 1) * p_key_bytes, starts[1] + k.i * p_key_bytes, p_trace
        FROM unnest(p_key_ids) WITH ORDINALITY AS k (key_id, i);
END $$;

-- Hand the instructions of all p_key_ids to the slave's KME and mark them delivered, all or nothing, once. One row a
-- key, or a single row whose verdict says why not: 'foreign' (another SAE's key) goes before 'missing'. Keys that were
-- made together go together: those not asked for yet come along ('ahead'), so that the next one needs no round trip.
-- p_delivery names this delivery: repeated because its answer was lost, it gets the same answer again.
CREATE OR REPLACE FUNCTION qkd_deliver(
    p_delivery uuid, p_node text, p_master text, p_slave text, p_key_ids uuid[]
)
RETURNS TABLE (
    verdict text, key_id uuid, request uuid, ksid uuid, qc_name text, epoch bigint, start_at bigint, end_at bigint,
    trace uuid
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    PERFORM qkd_check_speaker(p_node);
    PERFORM 1 FROM key_instruction k
        WHERE k.request IN (SELECT own.request FROM key_instruction own WHERE own.key_id = ANY (p_key_ids))
        ORDER BY k.key_id FOR UPDATE;
    PERFORM 1 FROM key_instruction k WHERE k.key_id = ANY (p_key_ids) AND k.slave_sae <> p_slave;
    IF FOUND THEN
        verdict := 'foreign';
        RETURN NEXT;
        RETURN;
    END IF;
    IF (SELECT count(*) FROM key_instruction k WHERE k.key_id = ANY (p_key_ids) AND (k.delivery IS NULL OR k.delivery = p_delivery)
            AND k.master_sae = p_master AND k.slave_node = p_node) <> cardinality(p_key_ids) THEN
        verdict := 'missing';
        RETURN NEXT;
        RETURN;
    END IF;
    UPDATE key_instruction k SET delivery = p_delivery, delivered = clock_timestamp()
        WHERE k.delivery IS NULL AND k.master_sae = p_master AND k.slave_sae = p_slave
            AND k.request IN (SELECT own.request FROM key_instruction own WHERE own.key_id = ANY (p_key_ids));
    RETURN QUERY SELECT CASE WHEN k.key_id = ANY (p_key_ids) THEN 'ok' ELSE 'ahead' END,
            k.key_id, k.request, k.ksid, k.qc, k.epoch, k.start_at, k.end_at, k.trace
        FROM key_instruction k WHERE k.delivery = p_delivery;
END $$;

-- Hand the slave's KME the instructions that nobody has asked for yet, before their bytes are too old.
CREATE OR REPLACE FUNCTION qkd_collect(p_delivery uuid, p_node text, p_most integer)
RETURNS TABLE (
    key_id uuid, request uuid, ksid uuid, master_sae text, slave_sae text, qc_name text, epoch bigint, start_at bigint,
    end_at bigint, trace uuid
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    PERFORM qkd_check_speaker(p_node);
    -- Rows that a delivery holds are looked after.
    UPDATE key_instruction k SET delivery = p_delivery, delivered = clock_timestamp()
        WHERE k.key_id IN (
            SELECT w.key_id FROM key_instruction w WHERE w.slave_node = p_node AND w.delivery IS NULL
            ORDER BY w.key_id LIMIT p_most FOR UPDATE SKIP LOCKED);
    RETURN QUERY SELECT k.key_id, k.request, k.ksid, k.master_sae, k.slave_sae, k.qc, k.epoch, k.start_at,
            k.end_at, k.trace
        FROM key_instruction k WHERE k.delivery = p_delivery;
END $$;

-- Bytes that could be allocated now on each of p_qcs.
CREATE OR REPLACE FUNCTION qkd_available(p_qcs text[]) RETURNS TABLE (qc_name text, n_bytes bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY SELECT name, CASE WHEN epoch_a = epoch_b
            THEN greatest(0, head - greatest(tail, floor, floor_a, floor_b)) ELSE 0 END
        FROM qc WHERE name = ANY (p_qcs);
END $$;

-- End sessions of nodes that hold rows and do not come to an end: whoever waited for rows in vain calls this. A node does
-- each call in a transaction of its own, for a moment; one that stays in a transaction holds up all who share its QCs.
CREATE OR REPLACE FUNCTION qkd_end_holders() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND (usename LIKE 'node-%' OR usename = session_user) AND pid <> pg_backend_pid()
            AND xact_start < clock_timestamp() - CASE state WHEN 'active' THEN interval '5 s' ELSE interval '0.5 s' END;
END $$;

REVOKE ALL ON FUNCTION qkd_check_speaker, qkd_available, qkd_register_qc, qkd_report, qkd_compare, qkd_allocate, qkd_deliver, qkd_collect, qkd_end_holders FROM PUBLIC;
