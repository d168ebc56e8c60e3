package millrace.peers.flink;

import millrace.peers.job.ScoredWriter;
import org.apache.flink.api.common.serialization.SerializationSchema;

/** A scored payment as the value of an output record. */
final class ScoredSerializer implements SerializationSchema<ScoredPayment> {
    private static final long serialVersionUID = 1L;

    private final String schemas;
    private transient ScoredWriter writer;

    ScoredSerializer(String schemas) {
        this.schemas = schemas;
    }

    @Override
    public void open(InitializationContext context) {
        writer = new ScoredWriter(schemas);
    }

    @Override
    public byte[] serialize(ScoredPayment scored) {
        return writer.write(scored.paymentId, scored.features, scored.score);
    }
}
