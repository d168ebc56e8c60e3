package millrace.peers.kafkastreams;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import millrace.peers.job.Arguments;
import millrace.peers.job.Model;
import millrace.peers.job.Payment;
import millrace.peers.job.PaymentReader;
import millrace.peers.job.ScoredWriter;
import millrace.peers.job.Windows;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Windows, model, output: one task's share.
 *
 * <p>A call of the model costs as much as scoring two rows, so rows are collected and scored together. The framework may commit offsets
 * between any two records; rows not scored yet are therefore kept in a store, which is committed with them and read again after a restart.
 * The store is cached: between two commits a place that was written a hundred times costs one record of the changelog.
 */
final class ScorePayments implements Processor<byte[], byte[], byte[], byte[]> {
    static final String PAYMENTS = "payments";
    static final String UNSCORED = "unscored";

    private static final int SCORED_BATCH = -1; // where the number of the last scored batch is kept, among the places of rows

    private final Arguments arguments;
    private final Model.Scorer scorer;
    private final int mostRows;
    private final byte[][] keys;
    private final String[] ids;
    private final long[] timestamps;
    private final double[][] features;
    private final float[] scores;

    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<Integer, byte[]> unscored;
    private Customers customers;
    private PaymentReader reader;
    private ScoredWriter writer;
    private int rows;
    private long batch = 1;

    ScorePayments(Arguments arguments, Model model) {
        this.arguments = arguments;
        mostRows = arguments.number("rows");
        scorer = model.new Scorer(mostRows);
        keys = new byte[mostRows][];
        ids = new String[mostRows];
        timestamps = new long[mostRows];
        features = new double[mostRows][Windows.FEATURES];
        scores = new float[mostRows];
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
        this.context = context;
        KeyValueStore<Bytes, byte[]> payments = context.getStateStore(PAYMENTS);
        customers = new Customers(payments);
        unscored = context.getStateStore(UNSCORED);
        reader = new PaymentReader(arguments.get("schemas"));
        writer = new ScoredWriter(arguments.get("schemas"));
        takeUpUnscored();
        // Counted from one moment, all tasks of a thread are due together, and one transaction has the rows of all.
        Duration every = Duration.ofMillis(arguments.number("score-ms"));
        context.schedule(Instant.EPOCH, every, PunctuationType.WALL_CLOCK_TIME, now -> scoreInTime());
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        Payment payment = reader.read(record.value());
        keys[rows] = record.key();
        ids[rows] = payment.paymentId;
        timestamps[rows] = record.timestamp();
        customers.pass(payment, features[rows]);
        if (mostRows > 1) {
            unscored.put(rows, packed(rows));
        }
        rows++;
        if (rows == mostRows) {
            score();
        }
    }

    /** Under exactly-once a row is seen when it is committed: the commit asked for here follows at once, no record comes between. */
    private void scoreInTime() {
        score();
        if (arguments.get("guarantee").equals(StreamsConfig.EXACTLY_ONCE_V2)) {
            context.commit();
        }
    }

    private void score() {
        if (rows == 0) {
            return;
        }
        scorer.score(features, rows, scores);
        for (int row = 0; row < rows; row++) {
            context.forward(new Record<>(keys[row], writer.write(ids[row], features[row], scores[row]), timestamps[row]));
        }
        if (mostRows > 1) {
            unscored.put(SCORED_BATCH, ByteBuffer.allocate(Long.BYTES).putLong(batch).array());
        }
        batch++;
        rows = 0;
    }

    private byte[] packed(int row) {
        byte[] id = ids[row].getBytes(StandardCharsets.UTF_8);
        ByteBuffer value = ByteBuffer.allocate((2 + Windows.FEATURES) * Long.BYTES + 2 * Integer.BYTES + keys[row].length + id.length);
        value.putLong(batch).putLong(timestamps[row]);
        for (double feature : features[row]) {
            value.putDouble(feature);
        }
        value.putInt(keys[row].length).put(keys[row]).putInt(id.length).put(id);
        return value.array();
    }

    /** After a restart: rows of the batch after the last scored one are in the store, from the first place on. */
    private void takeUpUnscored() {
        byte[] scored = unscored.get(SCORED_BATCH);
        batch = scored == null ? 1 : ByteBuffer.wrap(scored).getLong() + 1;
        for (; rows < mostRows; rows++) {
            byte[] packed = unscored.get(rows);
            if (packed == null) {
                return;
            }
            ByteBuffer value = ByteBuffer.wrap(packed);
            if (value.getLong() != batch) {
                return;
            }
            timestamps[rows] = value.getLong();
            for (int feature = 0; feature < Windows.FEATURES; feature++) {
                features[rows][feature] = value.getDouble();
            }
            keys[rows] = new byte[value.getInt()];
            value.get(keys[rows]);
            byte[] id = new byte[value.getInt()];
            value.get(id);
            ids[rows] = new String(id, StandardCharsets.UTF_8);
        }
    }
}
