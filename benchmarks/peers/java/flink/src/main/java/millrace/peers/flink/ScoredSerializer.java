package millrace.peers.flink;

import java.nio.charset.StandardCharsets;
import millrace.peers.job.ScoredWriter;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.kafka.clients.producer.ProducerRecord;

/** A scored payment as a record of the output, keyed by its customer as the input is. */
final class ScoredSerializer implements KafkaRecordSerializationSchema<ScoredPayment> {
    private static final long serialVersionUID = 1L;

    private final String topic;
    private final String schemas;
    private transient ScoredWriter writer;

    ScoredSerializer(String topic, String schemas) {
        this.topic = topic;
        this.schemas = schemas;
    }

    @Override
    public void open(SerializationSchema.InitializationContext context, KafkaSinkContext sinkContext) {
        writer = new ScoredWriter(schemas);
    }

    @Override
    public ProducerRecord<byte[], byte[]> serialize(ScoredPayment scored, KafkaSinkContext context, Long timestamp) {
        byte[] value = writer.write(scored.paymentId, scored.features, scored.score);
        return new ProducerRecord<>(topic, scored.customerId.getBytes(StandardCharsets.UTF_8), value);
    }
}
